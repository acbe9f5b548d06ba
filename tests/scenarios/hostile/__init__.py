"""Ordinary clients beside hostile ones: whatever one client or one command does, the others keep their service.

The neighbours are processes of their own (`neighbours`), the ordinary clients keep an account of what they were told
(`bystanders`), and a stage is one neighbour with what it needs of the servers (`stages`).
"""
