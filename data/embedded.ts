/**
 * Datasets that the program itself holds. In a checkout there are none: `tools/bundle.ts` puts the default dataset in this
 * module's place, so that the one-file forms train without a network.
 * @module
 */

/** Files of datasets by the dataset's name: name and text, the text in gzip and base64. */
export const embedded: Readonly<Record<string, Readonly<Record<string, string>>>> = {};
