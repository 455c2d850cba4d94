"""The report's sections: priced cells in, sentences and tables of one section out.

Each module's `*_section` function returns what the template of the same name in report/assets/sections shows.
"""
