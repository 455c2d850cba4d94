"""The command line: options in, text or JSON and an exit status out.

`commands` parse options and call `harness.workflows`; `views` print results. Only this package prints.
"""
