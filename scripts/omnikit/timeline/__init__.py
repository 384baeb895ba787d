"""What commands did, and when: the steps of a run as it goes on, its record, and where time went.

deploy, roll and profile write records; invoke timeline and reports read them. Knows nothing of
hosts and plans: below fleet and deploy.
"""
