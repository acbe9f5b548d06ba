"""Options, configuration files, passwords, and the log of both programs.

cli_parser.py     reads a model of options from flags, the environment, and a file
fields.py         one field of a model gives flag, variable, file key, and help
keyring.py        current and former password, and which of them a server accepts
log_limit.py      limits how often the same line is logged
logging_setup.py  format and output of the log: JSON or text, on stderr
yaml_file.py      YAML files of this system and of the gem
"""
