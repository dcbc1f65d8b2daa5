"""The tables of a report: of the ladder, of where the time goes, of the hardware."""
