"""
The command line, `art-mmc`: parse, check, call, print; one function a command. No logic here.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

from art_mmc.checks import tomllib, unknown_name
from art_mmc.cli.run import Parser, UsageError, page, user_errors
from art_mmc.cli.verbs import VERBS, add_verb
from art_mmc.studies.flags import from_args

#: seconds that the first process has to tell of an error: torchrun ends it as soon as another one has ended
_TELLING = 1.0


def build_parser() -> Parser:
    """The parser of the command line. Its errors are exceptions, which :func:`main` turns into a line."""
    from art_mmc import __version__

    parser = Parser(prog="art-mmc", **page("art-mmc"))
    parser.add_argument("--version", action="version", version=f"art-mmc {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    parser.commands = commands.choices
    for verb in VERBS:
        add_verb(commands, verb)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and not argv[0].startswith("-") and argv[0] not in parser.commands:
        raise UsageError(str(unknown_name("command", argv[0], parser.commands)))
    if argv and "--config" in getattr(parser.commands.get(argv[0]), "_option_string_actions", ()):
        early = Parser(add_help=False)  # what is needed may stand in the file
        early.add_argument("--config")
        if (config := early.parse_known_args(argv[1:])[0].config) is not None:
            with user_errors():
                argv[1:1] = _from_toml(config)
    args, rest = parser.parse_known_args(argv)
    if rest and rest[0].startswith("-"):
        known = parser.commands.get(args.command or "", parser)._option_string_actions
        names = [option for option in known if option.startswith("--")]
        raise UsageError(str(unknown_name("option", rest[0].partition("=")[0], names)))
    if rest:
        raise UsageError(f"unexpected argument '{rest[0]}'; see art-mmc {args.command} --help")
    if args.command is None:
        raise UsageError(f"a command is needed: {', '.join(parser.commands)}; see art-mmc --help")
    return args


def _from_toml(path: str) -> list[str]:
    """The options that a TOML file holds, as on the command line, which comes after them and so overrides them."""
    try:
        with open(path, "rb") as file:
            options = tomllib.load(file)
    except ValueError as err:  # no TOML, or no text
        raise ValueError(f"--config {path}: {err}") from None
    argv: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if option == "--set" and isinstance(value, dict):
            for key, entry in value.items():
                try:
                    argv += ["--set", f"{key}={json.dumps(entry)}"]
                except TypeError:
                    raise ValueError(f"--config {path}: set: {key}: expected no date, got {entry!r}") from None
        elif isinstance(value, bool):
            argv += [option] if value else []
        elif isinstance(value, (str, int, float)):
            argv.append(f"{option}={value}")
        else:
            raise ValueError(f"--config {path}: {name}: expected a string, a number or true, got {value!r}")
    return argv


def main(argv: Sequence[str] | None = None) -> int:
    """
    The command line.

    :param argv: Arguments without the program's name; None for those of the process.
    :return: Exit status: 0, 1 for what `evaluate --fail-under` asks, 2 for a user's mistake, 130 for Ctrl-C.
    """
    try:
        args = _parse(argv)
        with user_errors():
            settings = from_args(args.settings, args)
        status = args.run(settings)
    except UsageError as err:
        _tell(f"error: {err}")
        return 2
    except KeyboardInterrupt as err:
        resume = "; the same command with --resume goes on" if getattr(err, "folder", None) else ""
        _tell(f"{'interrupted' if resume else str(err) or 'interrupted'}{resume}")
        return 130
    except BrokenPipeError:  # `art-mmc recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as err:  # --help and --version
        return int(err.code or 0)
    return int(status or 0)


def _tell(message: str) -> None:
    """One line; under torchrun all processes of a machine have the same to say, and the first says it."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"art-mmc: {message}", file=sys.stderr, flush=True)
    else:
        time.sleep(_TELLING)
