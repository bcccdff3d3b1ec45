from alexnet_pl.report.cli import main

main()
