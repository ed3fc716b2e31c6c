/** Version of Muster, as checkpoints record it and `muster --version` prints it. */
export const version = "0.1.0";
