"""Goal: whoever names something that there is not is told so, with what there is, and by exit code 4; nothing is asked,
changed or made before that.

Method: the commands over two SQLite systems in agreement, without a daemon and beside one.
"""

from __future__ import annotations
