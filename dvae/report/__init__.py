"""Tables, pictures and plots."""
