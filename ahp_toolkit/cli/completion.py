"""``ahp completion``: the script by which a shell completes commands, options and the names of plug-ins."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

#: shell -> the line that loads the script, and the file it belongs into
INSTALL = {
    "bash": ('eval "$(ahp completion bash)"', "~/.bashrc"),
    "zsh": ('eval "$(ahp completion zsh)"', "~/.zshrc, after compinit"),
    "fish": ("ahp completion fish | source", "~/.config/fish/completions/ahp.fish"),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(list(INSTALL)))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL; its last line says how to install it.

    \b
    eval "$(ahp completion bash)"       in ~/.bashrc
    eval "$(ahp completion zsh)"        in ~/.zshrc, after compinit
    ahp completion fish | source        in ~/.config/fish/completions/ahp.fish
    """
    from ahp_toolkit.cli.main import ahp

    made = get_completion_class(shell)
    assert made is not None
    script = made(ahp, {}, "ahp", "_AHP_COMPLETE").source()
    line, file = INSTALL[shell]
    click.echo(f"{_with_folders(script) if shell == 'bash' else script}\n# put this line into {file}:  {line}")


def _with_folders(script: str) -> str:
    """Bash takes ``coco=/data`` for three words: let its own file names stand in where we know none, and no space."""
    script = script.replace("-o nosort -F", "-o nosort -o default -F")
    return script.replace("    return 0\n", '    [[ "${COMPREPLY[*]}" == *= ]] && compopt -o nospace\n    return 0\n')
