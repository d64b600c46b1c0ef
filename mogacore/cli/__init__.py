"""The command ``mogacore``: one file per subcommand, each with ``add_arguments`` and ``main``, which tools/ reuse."""
