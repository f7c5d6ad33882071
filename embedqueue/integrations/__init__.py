"""A queue in the place of other libraries' embedders: LangChain's and RedisVL's. Each module needs its library."""
