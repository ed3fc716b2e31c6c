/** Scripts that complete, one for each shell: plain tables, so that no process is started while somebody types. */

import type { CompletedCommand, CompletedFlag, CompletedValue, Completions } from "./completion_table.ts";

const takesValue = (flag: CompletedFlag) => flag.value !== undefined;
const namesOf = (flags: readonly CompletedFlag[]) => flags.flatMap(({ names }) => names);
/** Quoted for bash and zsh. */
const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
/** The first sentence, where there is little room. */
const short = (text: string) => text.replace(/\s+/g, " ").split(/; | \(default/)[0];

/** Flags with the same kind of value together. */
function byValue(flags: readonly CompletedFlag[]): { names: string[]; value: CompletedValue }[] {
  const groups = Map.groupBy(flags.filter(takesValue), ({ value }) => JSON.stringify(value));
  return [...groups.values()].map((members) => ({ names: namesOf(members), value: members[0].value! }));
}

/** For bash 3.2 and newer, with or without the package bash-completion. */
export function bashScript({ commands, flags }: Completions): string {
  const set = ({ words, paths }: CompletedValue) => `words=${quote(words.join(" "))} paths=${paths}`;
  const ofCommand = ({ name, flags, argument }: CompletedCommand) =>
    `    ${name})
      flags=${quote(namesOf(flags).join(" "))}
      case $previous in
${byValue(flags).map(({ names, value }) => `        ${names.join("|")}) flags= ${set(value)} ;;\n`).join("")}` +
    `        *) ${argument ? set(argument) : ":"} ;;
      esac
      ;;
`;
  return `# bash completion of muster, made by: muster completions bash
_muster() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} flags= words= paths=none line
  # --flag=value comes as three words.
  if [[ $current == = ]]; then current=
  elif [[ $previous == = ]]; then previous=\${COMP_WORDS[COMP_CWORD-2]}; fi
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W ${quote([...commands.map(({ name }) => name), ...namesOf(flags)].join(" "))} -- "$current"))
    return
  fi
  case \${COMP_WORDS[1]} in
${commands.map(ofCommand).join("")}  esac
  if [[ $current == -* ]]; then words=$flags paths=none; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  local kind=-f
  case $paths in
    none) return ;;
    folders) kind=-d ;;
  esac
  compopt -o filenames 2>/dev/null
  while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen $kind -- "$current")
}
complete -F _muster muster
`;
}

/** For zsh. */
export function zshScript({ commands, flags }: Completions): string {
  const escape = (text: string) => text.replace(/[\\[\]:]/g, "\\$&");
  const action = ({ words, paths }: CompletedValue) => {
    const files = paths === "folders" ? "_files -/" : "_files";
    if (words.length === 0) return paths === "none" ? " " : files;
    return paths === "none" ? `(${words.join(" ")})` : `{compadd -- ${words.join(" ")}; ${files}}`;
  };
  const ofFlag = ({ names, description, value }: CompletedFlag) =>
    names.map((name) =>
      quote(
        `${name}${value && name.startsWith("--") ? "=" : ""}[${escape(short(description))}]` +
          (value ? `:value:${action(value)}` : ""),
      )
    );
  const specs = (flags: readonly CompletedFlag[], argument?: CompletedValue) =>
    [...flags.flatMap(ofFlag), ...(argument ? [quote(`*:argument:${action(argument)}`)] : [])]
      .map((spec) => ` \\\n        ${spec}`).join("");
  const ofCommand = ({ name, flags, argument }: CompletedCommand) =>
    `      ${name})\n        _arguments${specs(flags, argument)}\n        ;;\n`;
  return `#compdef muster
# zsh completion of muster, made by: muster completions zsh
_muster() {
  if ((CURRENT == 2)); then
    local -a commands=(
${commands.map(({ name, description }) => `      ${quote(`${name}:${escape(description)}`)}\n`).join("")}    )
    _describe -t commands command commands
    _arguments${specs(flags)}
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
${commands.map(ofCommand).join("")}  esac
}
if [[ $funcstack[1] == _muster ]]; then _muster "$@"; else compdef _muster muster; fi
`;
}

/** For fish. */
export function fishScript({ commands, flags }: Completions): string {
  const escape = (text: string) => `'${text.replace(/[\\']/g, "\\$&")}'`;
  const suffix = ({ words, paths }: CompletedValue) => {
    const folders = paths === "folders" ? ["(__fish_complete_directories)"] : [];
    const list = [...words, ...folders].join(" ");
    return (paths === "files" ? " -F" : " -f") + (list ? ` -a ${escape(list)}` : "");
  };
  const ofFlag = (condition: string, { names, description, value }: CompletedFlag) =>
    `complete -c muster -n ${escape(condition)} ` +
    names.map((name) => name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`).join(" ") +
    ` -d ${escape(short(description))}${value ? ` -r${suffix(value)}` : ""}\n`;
  const first = "test (count (commandline -opc)) -eq 1";
  const ofCommand = ({ name, flags, argument }: CompletedCommand) => {
    const condition = `test (count (commandline -opc)) -gt 1; and test (commandline -opc)[2] = ${name}`;
    return flags.map((flag) => ofFlag(condition, flag)).join("") +
      (argument ? `complete -c muster -n ${escape(condition)}${suffix(argument)}\n` : "");
  };
  return `# fish completion of muster, made by: muster completions fish
complete -c muster -e
complete -c muster -f
${
    commands.map(({ name, description }) =>
      `complete -c muster -n ${escape(first)} -a ${name} -d ${escape(short(description))}\n`
    ).join("")
  }${flags.map((flag) => ofFlag(first, flag)).join("")}${commands.map(ofCommand).join("")}`;
}
