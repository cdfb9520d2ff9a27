"""Connected Accounts: the gRPC backend that connects, refreshes and revokes end users' social accounts."""
