from alexnet_pl.report import main

main()
