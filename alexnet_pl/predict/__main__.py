from alexnet_pl.predict import main

main()
