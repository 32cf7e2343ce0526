"""The shipped configurations, as ``dual_loop_configs`` also for configs that lie elsewhere (a link in ``projects``)."""
