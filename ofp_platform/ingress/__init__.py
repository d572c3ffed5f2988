"""Ingress: the door in front of the log. Each record that comes to it leaves a receipt."""
