"""The claims of the method's paper on a ResNet, an LSTM and a Transformer, on real data.

Run it in the folder above: ``python -m reproduction --help``. ``make reproduce`` does all of it.
"""
