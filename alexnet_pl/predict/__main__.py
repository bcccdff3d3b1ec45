from alexnet_pl.predict.cli import main

main()
