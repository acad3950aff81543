"""What `fastlstm.sklearn` offers: estimators that train a model of this package by a `Trainer`."""
