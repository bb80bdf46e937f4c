"""`python -m policy_ft` is `policy-ft`."""

from policy_ft.cli import main

if __name__ == "__main__":
    main()
