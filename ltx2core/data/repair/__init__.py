"""Mended copies of clips: plan.py says what is done to one, mend.py does it, folder.py makes a whole folder. Originals stay as they are."""
