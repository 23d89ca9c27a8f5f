"""Engines on other machines, as replicas of a Ray Serve deployment.

    API process   ClusterEngine (who gets the next slot, failover)
                      |  gRPC: utterances, chunks, errors, signs of life
    GPU host      EngineReplica (one Engine, one model, one GPU) x N

Ray Serve places the replicas, watches, replaces and scales them. Only ray_replicas.py, replica.py, router.py
and deploy.py import Ray, and only when a cluster is used.
"""
