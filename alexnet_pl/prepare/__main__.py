from alexnet_pl.prepare import main

main()
