"""Judgements of pictures: prompt alignment, nearest training pictures, sample sheets."""
