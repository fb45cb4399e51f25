"""From episodes to numbers: metrics, statistics, records and what a person sees."""
