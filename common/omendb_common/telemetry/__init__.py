"""What a process says about itself: metrics, health, log lines, and how far its event loop lags behind."""
