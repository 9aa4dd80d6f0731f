"""The command line: fooddit prepare | generate | evaluate | ... Each command imports what it needs."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from fooddit.streams import open_streams, silence

COMMANDS = {
    "prepare": ("fooddit.prepare_command", "a catalogue of photos (or scenes, or a TFDS builder) becomes records"),
    "generate": ("fooddit.generate_command", "pictures from a checkpoint"),
    "evaluate": ("fooddit.evaluate_command", "how good a checkpoint's pictures are: distances, fit, diversity, copies"),
    "standard": ("fooddit.standard_command", "what a good picture is, as it is rated by: print one, check your own"),
    "rate": ("fooddit.rate_command", "people rate pictures under a standard, in a browser"),
    "export": ("fooddit.export_command", "a run's averaged weights as safetensors, config.json and tokenizer.json"),
    "checkpoint": ("fooddit.training.checkpoint_command", "list, verify or hash a run's checkpoints"),
    "compile": (
        "fooddit.aot.compile_command",
        "a config's program for a TPU pod or GPUs that are not here: does it fit?",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; bad input is one line on stderr and exit code 2, Ctrl-C 130."""
    parser = argparse.ArgumentParser(
        prog="fooddit", description="Train and use image models of dishes. Training: python main.py --config=FILE"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        importlib.import_module(module).add_arguments(command)
        command.set_defaults(run=importlib.import_module(module).run)
    args, rest = parser.parse_known_args(arguments)
    if rest and not getattr(args, "takes_config", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.config_flags = rest
    # What XLA and gRPC write at start-up says nothing to a user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    open_streams()
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        silence(sys.stdout)  # Whoever read it has seen enough.
        return 141
    except (ValueError, OSError, LookupError) as error:
        print(f"fooddit {args.command}: {error}", file=sys.stderr)
        return 2
