"""`cardium completion bash|zsh`: a script by which the shell completes verbs, options and files, from the parser itself."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh")

_SCRIPT = """\
_cardium() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" verb="${{COMP_WORDS[1]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{verbs}"
  else
    case "$verb" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  case "$current" in -*) ;; *) [ "$COMP_CWORD" -gt 1 ] && COMPREPLY+=($(compgen -f -- "$current")) ;; esac
}}
complete -o filenames -F _cardium cardium
"""


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for `shell`; zsh runs bash's by its bashcompinit."""
    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    listed = {choice.dest for choice in verbs._choices_actions}
    cases = []
    for name, verb in verbs.choices.items():
        if name in listed:
            options = [option for action in verb._actions for option in action.option_strings if option.startswith("--")]
            cases.append(f'      {name}) words="{" ".join(options)}" ;;')
    script = _SCRIPT.format(verbs=" ".join(name for name in verbs.choices if name in listed), cases="\n".join(cases))
    return script if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{script}"
