"""The admin API: one table of endpoints (`table`) behind one door (`shell`). A function adds rows and a module."""
