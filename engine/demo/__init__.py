"""`concord demo`: three systems of a small service company, a day of business, and the daemon between them.

Nothing here is part of the engine. The demo uses Concord as anybody would: three databases with their own applications
(this package plays them), a folder with `concord.toml` and mappings, and the command `concord` in processes of its own.
"""
