from alexnet_pl.evaluate import main

main()
