"""One checkpoint directory becomes another. It knows neither torch nor transformers, nor who asked."""
