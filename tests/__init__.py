"""The run-time type checker of the tests: beartype, with ints taken where floats are meant, as type checkers do."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
