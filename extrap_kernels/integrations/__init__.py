"""Callbacks for training frameworks. Import the module of yours; it needs the framework installed."""
