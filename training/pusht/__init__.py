"""What training does for PushT alone."""
