"""What the user, docker's files and containers' files say of registries: certificates, mirrors, refusals."""
