"""The tables of our sources, made again: published figures beside own ones, each as the drop from its own baseline."""
