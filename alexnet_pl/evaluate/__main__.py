from alexnet_pl.evaluate.cli import main

main()
