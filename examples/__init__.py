"""Programs that use spgrad as any user would."""
