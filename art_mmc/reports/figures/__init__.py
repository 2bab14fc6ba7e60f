"""
Pictures of reports: one palette, one manner.
"""
