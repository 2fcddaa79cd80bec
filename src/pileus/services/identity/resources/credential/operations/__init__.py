"""Operations on credentials, and on those of the EC2 API by their own paths."""
