"""Goal: what is parked can be looked at, tried again and given up, one by one and all together; nobody is left with a
difference that nobody told them of.

Method: the ERP has a check that refuses some names, the CRM rows that are no text; the commands without a daemon and
beside one.
"""

from __future__ import annotations
