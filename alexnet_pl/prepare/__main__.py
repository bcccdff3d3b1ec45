from alexnet_pl.prepare.cli import main

main()
