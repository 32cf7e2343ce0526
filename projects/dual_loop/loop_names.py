"""How a loop is called in words, and where its data loader stands in a config."""


def loop_title(name: str) -> str:
    """A loop's name in words: ``loop 1`` for ``loop1``; other names are words already."""
    return f'loop {name[4:]}' if name.startswith('loop') and name[4:].isdecimal() else name


def loader_key(name: str) -> str:
    """Where the data loader of a loop other than the first stands in a config."""
    return 'train_cfg.loop2_dataloader' if name == 'loop2' else f'train_cfg.loop_dataloaders.{name}'
