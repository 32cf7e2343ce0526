"""``python -m dual_loop_command`` is ``dual-loop``."""
from dual_loop_command.main import main

if __name__ == '__main__':
    main()
