"""List the commands, with a line each."""

from alexnet_pl.console import start_command

COMMANDS = {
    "train": "train one run, or a sweep of runs",
    "describe": "show the net of a configuration as a table",
    "estimate": "estimate hours, memory and traffic of a run",
    "prepare": "pack a folder of images into a dataset, once",
    "evaluate": "evaluate a run or an ensemble: centre crop or ten crops",
    "predict": "label images, find their neighbours, draw Figure 4",
    "report": "draw curves, tables and pages of a folder of runs",
    "export": "write a trained net as ONNX or plain weights",
    "sync": "send offline W&B runs to the server",
}

if __name__ == "__main__":
    start_command()
    for name, line in COMMANDS.items():
        print(f"python -m alexnet_pl.{name:9} {line}")
    print("\nEach has --help. Start with: python -m alexnet_pl.train sweep=figure1")
