"""The main job on a real model and real data, in minutes: what ``railkd demo`` and ``make demo`` run."""
