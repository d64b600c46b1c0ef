"""The command ``mogacore``: a file per subcommand, each with ``add_arguments`` and ``main``, which tools/ share."""
