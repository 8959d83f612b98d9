"""The commands of `python -m training`.

`recipe_options` and `data_options` declare the options, `program` names the function behind each command;
`model_commands` and `data_commands` hold those functions and are imported only when one of them runs. May import every
other room of `training`.
"""
