"""Every IAM document of the app, one module for each role: plain dicts, no network, no clock."""
